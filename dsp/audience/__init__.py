"""What is known of a person, and whether we may know it."""
