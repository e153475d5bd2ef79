"""Images of a trained generator: single samples, walks, traversals, projections, and the files that hold them."""
