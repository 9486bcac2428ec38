"""Token sources: what a network is told beside the image."""
