"""How a camera sees the town: from meshes to a photo and its label."""
