"""The web page of `fasthamer serve`: Gradio, on this machine only."""
