"""The operators in C++ for the CPU, and how they are compiled into one library."""
