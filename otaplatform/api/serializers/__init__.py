"""What is read and what is answered, one module per resource."""
