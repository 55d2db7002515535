"""The routes of the API, one module for what belongs together; each has its table, ROUTES."""
