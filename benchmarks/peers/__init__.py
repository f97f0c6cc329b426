"""Other optimizers, each in a process of its own."""
