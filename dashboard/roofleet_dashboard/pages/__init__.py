"""The pages, one module each: PATH, TITLE, layout(search) and register(app, source)."""
