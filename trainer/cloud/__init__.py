"""Vertex AI: what a job file says and what a job's environment says, without TensorFlow and without Google's SDK."""
