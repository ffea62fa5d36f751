"""The program on one page: each stage is a function from tables to tables."""
