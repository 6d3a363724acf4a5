"""One self-contained page that shows a city: pictures, figures, tiles, times."""
