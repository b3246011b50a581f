"""Other people's layouts of vectors: into a store and out of it, without loss."""
