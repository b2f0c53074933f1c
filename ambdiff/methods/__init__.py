"""One file a method; each gives init, loss and sample."""
