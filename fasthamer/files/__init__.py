"""Reading and writing files safely: nothing is executed, nothing is left half-written."""
