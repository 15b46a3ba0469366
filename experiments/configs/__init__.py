"""One file an experiment; each says what it reproduces, what it costs and what to expect."""
