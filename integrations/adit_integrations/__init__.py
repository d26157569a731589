"""Third parties behind entry points, one a file; nothing is imported unless asked for."""
