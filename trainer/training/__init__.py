"""The engine: it runs phases on devices, step by step, and knows no GAN by name."""
