"""Names that columns, arrays, features and keys with images and with labels usually have."""

IMAGE_NAMES = ("image", "images", "img", "imgs", "x")
"""Usual names of images."""
LABEL_NAMES = ("label", "labels", "class", "class_name", "target", "targets", "y")
"""Usual names of labels, the most specific ones first."""
