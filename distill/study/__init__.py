"""Studies: grids of trainings over settings and seeds, with tables and plots of what they found."""
