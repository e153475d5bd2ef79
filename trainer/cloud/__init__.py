"""Vertex AI: job files, the job service, a local emulator and local studies."""
