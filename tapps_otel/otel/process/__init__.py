"""Providers in this process: their set-up, forks, and the flush at exit."""
