"""Where the files come from: web, folder and synthetic sample; and how one file is fetched."""
