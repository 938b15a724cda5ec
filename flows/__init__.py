"""The outside: config, building the parts, Prefect flows, the command line. Imports everything; nothing imports it."""
