"""Anthropic's dialect of the API: its requests turned into those of the native API, and native answers turned into its own."""
