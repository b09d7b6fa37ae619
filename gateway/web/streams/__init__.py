"""Public market streams: what they say, who gets it, and how the same bytes reach everybody."""
