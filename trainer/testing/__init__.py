"""Local servers that replace Google's services in tests, benchmarks and rehearsals of jobs.

- `bucket_server`: a Cloud Storage server in memory.
- `fault_proxy`: a proxy in front of it that injects faults into requests.
- `vertex_service`: a server that accepts and runs jobs as Vertex AI does.

No module of this package is imported by the trainer itself.
"""
