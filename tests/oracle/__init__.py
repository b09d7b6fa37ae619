"""A slow, obvious exchange to compare the engine with; written from the documents, shares no code with it."""
