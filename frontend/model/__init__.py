"""Plain data: what is captured (session), what is concluded (report), what doctor finds."""
