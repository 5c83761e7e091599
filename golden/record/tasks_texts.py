"""What golden/record/tasks_cases.py asks about: plain sentences, and some with odd characters."""

TEXTS = [
    "The concert was beautiful, and the band played until midnight.",
    "Anna Smith lives in a small village near the sea.",
    "Bad food, cold soup, and the waiter was never there!",
    "On Monday, 3 May 1998, the team went to London.",
    "What a funny little film :-)",
    "The price of the piano was 1,250 euro.",
    "Zoë and David met at the Café Österreich in Berlin.",
    "She sings... and he plays the violin?",
    "😀 good meal, good wine 😀",
    "שלום, אולם",
    "John said: “The museum is open on Sunday.”",
    "MARIA BOUGHT A BLUE BOAT IN OSLO",
    "a",
    "No.",
    "(see www.paris-museum.com/news?id=42 for more)",
    "中 letters and the Straße – one word each",  # noqa: RUF001
    "It's 7:45; the train left at 7:30.",
    "The old clock in the hall of the white house on the hill is never right.",
    "\tTwo\n lines,  and   spaces ",
    "Peter’s dog waited under the table until the children went to school.",  # noqa: RUF001
]

TOO_LONG = "The river is long and the summer is hot. " * 8  # never recorded for classification

PAIRS = [
    ("Is the kitchen clean?", "Yes, and the light is good."),
    ("The boat is red.", "The boat is not blue."),
    ("Who wrote the song?", "Clara, in 1990."),
    ("😀", "The street was quiet."),
    ("He sold the house.", "שלום"),
]

MASKED = [
    "The old [MASK] sat in the garden.",
    "She opened the [MASK], and [MASK] walked in.",
    "[MASK]",
    "He has never been to [MASK]!",
    "I do not know [MASK] you mean.",
    "In the café they drank [MASK] 😀.",
    "“It is a [MASK] day,” said Zoë.",
    "The [MASK] of the [MASK] was [MASK].",
    "3 + 4 = [MASK]",
    "שלום [MASK]",
    "the king and his [MASK] went to the war in [MASK] .",
    "A good book is a good [MASK].",
]

TARGETS = [["man", "dog", "king"], ["door", "window"], ["good", "bad", "old", "new", "very"]]

NAMED = [
    "Anna Smith lives in Berlin.",
    "On Monday, 3 May 1998, David met Clara in the museum of London.",
    "The Thompson family moved to Greenville last July.",
    "MARIA BOUGHT A BLUE BOAT IN OSLO",
    "Mr. Peterson-Clarke paid $40 (about 37 euro) on 2024-06-01!",
    "Paris",
    "Who saw Emma? She was at John's house at 7:45.",
    "The Café Berlin opened on Friday.",
    "Ben, Peter, John and Anna went from Rome to Paris by train.",
    "Nobody came.",
    "The river, the sea; the hill: the town.",
    "It was a long winter in Newtownland, wrote Robertson",
]

WRONG_NAMED = [
    "Cafe\u0301 Paris",
    "London 🚂 Berlin",
    "ﬁne",
    "Hello, Berlin\u0301!",
    "İstanbul, Paris",
    "Anna in Paris. " * 20,
]

SPLIT = [
    ["Anna", "Smith", "lives", "in", "Berlin", "."],
    ["Greenville", "and", "Oslo", "in", "July", "1998"],
    ["David", "Thompson", "paid", "John"],
    ["Anna's", "dog", "(3.May)"],
]

CONTEXTS = [
    "Anna bought a red boat in Oslo for 900 euro last summer.",
    "The museum opened on 3 May 1998; David Smith had paid for the hall, and his wife found the "
    "paintings in London and Rome.",
    "On Monday Zoë saw a white cat under the table of the Café Berlin 😀, and took it home.",
    "Anna sings.",
    "Emma lives by the sea. In winter she teaches music at the school of the village. Every "
    "summer many people visit her garden, which was made by Peter after the war. On Sunday she "
    "plays the piano there with three children from town. Clara, who is 81 years old, sings, and "
    "the dog of a neighbor waits under an apple tree until there is cake.",
    "For thousands of years nobody built a bridge over this river. Then, about 1890, a young man "
    "called Ben came to our city with a letter from the bank. He had waited, he said, for better "
    "light. Maria wrote down what it cost: 12,500 euro. When he left, early one November "
    "morning, it was cold, but all those who could walk went to see him off; my mother was away. "
    "Now there are two bridges, and a station between them (see page 7).",
]

QUESTIONS = [
    "Who bought it?",
    "When was that?",
    "Where does she live?",
    "How much did it cost?",
    "What did the man find under the old table?",
    "Why?",
]

CHOICES = [
    ("The train was late, so", ["she waited.", "she was not tired of the sea", "he sings"]),
    ("Zoë opened the café", ["on Sunday.", "in the piano."]),
    ("What is blue?", ["the sea", "a price", "music", "Monday", "😀"]),
    ("", ["yes", "no"]),
    ("He said “no”", ["and left.", "שלום", "but she stayed until the night."]),
    ("The dog", ["dog", "the dog", "The dog and the cat"]),
    ("One only", ["this"]),
    ("David went to London", ["by boat", "by train", "by music", "by and by"]),
]

SHORT = ["Anna saw a cat.", "né 😀", "3 euro!", "The Thompson piano", "שלום", "x", "(who?)"]
