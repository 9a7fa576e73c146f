"""The resources, one module per family."""
