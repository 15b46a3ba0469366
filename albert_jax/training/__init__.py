"""Training: losses, optimizer, the compiled step, devices, the loop and checkpoints."""
