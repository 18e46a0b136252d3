"""HTML pages in one file: the frame, tables, tiles and charts as SVG."""
