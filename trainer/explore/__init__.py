"""A local page that shows the images of a trained generator at any point of its latent space."""
