"""What runs the system on Kubernetes."""
