"""How each noun is made and removed on a host. One file a noun, two functions each: `ensure` and `absent`."""
