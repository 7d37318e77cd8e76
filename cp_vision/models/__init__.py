"""Models by name: what timm, torchvision and users build."""
