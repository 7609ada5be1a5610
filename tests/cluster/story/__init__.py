"""What a user of noderuntime sees, as functions that the demo prints and the tests assert."""
