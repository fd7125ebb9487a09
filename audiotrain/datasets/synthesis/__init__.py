"""Songs and sound scenes by synthesis.

arrangement.py   Notes for instruments
degradation.py   Degraded copies of songs, as recordings are that people have
guitar.py        Strummed and picked guitar songs: chord shapes, plucked strings
midi.py          MIDI files: their notes, and how long one sounds
progressions.py  Chord progressions
render.py        Audio from notes
sound_events.py  Sound events by synthesis
sound_scenes.py  Scenes of sound events with exact captions in many phrasings, and real clips
songs.py         Whole songs: composed from a seed, or MIDI files on random instruments
soundfont.py     A SoundFont 2 player
speech.py        Speech to put over music
"""
