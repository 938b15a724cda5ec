"""sparring: an online self-play alignment loop for language models."""
