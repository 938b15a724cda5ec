"""Many runs of one config, each changed in something, in one store, and compared. See docs/sweeps.md."""
