"""Study declarations (YAML), their torch-free schema, their expansion to arms, and the command line."""
