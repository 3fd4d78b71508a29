"""Where a gallery is searched: here, or by a Milvus server."""
