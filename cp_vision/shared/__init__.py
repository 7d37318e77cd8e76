"""What all rooms use: errors, command lines, files, image modes."""
