"""The process around: its end, its forks, its plug-ins."""
