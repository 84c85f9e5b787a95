"""Who may come in: tokens with roles, certificates, limits for each caller, and a record of refusals."""
