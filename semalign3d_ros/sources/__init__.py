"""Where images come from: folders, video files, webcams, recorded bags."""
