"""Other people's tools: each module needs its own package, and nothing else imports it."""
