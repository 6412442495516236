//! The forms that are not plain English, each with what to write instead.

/// Where a form is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Anywhere,
    /// At the beginning of a sentence that is not a question.
    SentenceStart,
}

use Where::{Anywhere, SentenceStart};

/// A form.
pub(super) struct Form {
    pub(super) place: Where,
    /// A regular expression.
    pub(super) find: &'static str,
    /// What was found is right if this is in it.
    pub(super) allowed: &'static str,
    /// What to write instead.
    pub(super) hint: &'static str,
    /// A sentence that has it, and a like one that has not: for the unit test.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the unit test"))]
    pub(super) hit: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the unit test"))]
    pub(super) passes: &'static str,
}

pub(super) const FORMS: &[Form] = &[
    Form {
        place: Anywhere,
        find: r"(?:[\w']+ ){0,2}\b(?:is|was) no \w+",
        allowed: r"(?i)\bthere (?:\w+ )?(?:is|was) no|no (?:longer|more|less|better|worse|later|different)\b",
        hint: "write \"is not a ...\" or \"is not an ...\"",
        hit: "The file is no io_uring.",
        passes: "There is no ring, and it is no longer a file: the answer is no.",
    },
    Form {
        place: Anywhere,
        find: r"(?:[\w']+ ){0,2}\b(?:are|were) no \w+",
        allowed: r"(?i)\bthere (?:\w+ )?(?:are|were) no|no (?:longer|more|less|better|worse|later|different)\b",
        hint: "write \"are not ...\"",
        hit: "Pipes are no rings.",
        passes: "There are no rings, and they are no longer files.",
    },
    Form {
        place: Anywhere,
        find: r"(?:[\w']+ ){0,2}\b(?:is|are|was|were) none\b(?: of)?",
        allowed: r"(?i)\bthere (?:\w+ )?(?:is|are|was|were) none|none of",
        hint: "write \"is not one\"",
        hit: "A cover letter is none.",
        passes: "There is none, and it is none of these.",
    },
    Form {
        place: Anywhere,
        find: r"\bof (?:our|its|their|your|his|her|my) own(?:[.,;:)]|$| (?:and|or|that|which|to|in|on|by|for|with|from|as|at|is|are|was|so|but|when|where|of|if|then|has|have|until|while|beside)\b)",
        allowed: "",
        hint: "write \"its own ...\", \"a separate ...\" or \"another ...\"",
        hit: "It runs in a process of its own.",
        passes: "It reads a part of its own memory.",
    },
    Form {
        place: Anywhere,
        find: r"\bone's own\b",
        allowed: "",
        hint: "write \"your own ...\"",
        hit: "It reads one's own ring.",
        passes: "It reads your own ring.",
    },
    Form {
        place: Anywhere,
        find: r"\b(?:to|can|could|cannot|may|might) be had\b",
        allowed: "",
        hint: "write \"is available\" or \"can be read\"",
        hit: "No lock is to be had.",
        passes: "No lock is available.",
    },
    Form {
        place: Anywhere,
        find: r"(?:[\w']+ ){0,3}\bby name\b",
        allowed: r"\b(?:looks? up|looked up|finds?|found|opens?|opened|sort(?:s|ed)?|ordered|searched)\b",
        hint: "write \"explicitly\", or say what is named and where",
        hit: "The locked read is asked for by name.",
        passes: "The program is looked up by name.",
    },
    Form {
        place: SentenceStart,
        find: r"(?:Who|Whoever|Whose|Whom|What|Whatever) [\w']+",
        allowed: r"^What(?:ever)? (?:follows|else)\b.*:$",
        hint: "begin with a noun: \"A process that ...\", \"The data that ...\"",
        hit: "Whoever holds the lock is named.",
        passes: "The holder of the lock is named, and what it does.",
    },
    Form {
        place: Anywhere,
        find: r"\b(?:to|for|by|with|from|that|if|when|because|while|than|unless) (?:who|whoever)\b(?: \w+)?",
        allowed: "",
        hint: "name the process, task or user: \"the process that ...\"",
        hit: "It is left to who reads it.",
        passes: "It says who holds the ring, to those who ask.",
    },
    Form {
        place: Anywhere,
        find: r"\bwhom\b(?: \w+)?",
        allowed: "",
        hint: "name the process, task or user: \"a process that ...\"",
        hit: "A user for whom pagemap is empty sees nothing.",
        passes: "A user without rights sees nothing.",
    },
    Form {
        place: Anywhere,
        find: r"\b(?:a|an) \w+ more(?:[.,;:)]|$| (?:and|or|for|in|by|is|to)\b)",
        allowed: r"\b(?:a|an) (?:little|bit|lot|few|dozen|hundred|thousand|million|day|week)\b",
        hint: "write \"one more ...\" or \"another ...\"",
        hit: "It costs a ring more.",
        passes: "It costs a little more, and one more ring.",
    },
    Form {
        place: Anywhere,
        find: r"\b(?:no one|nobody|Nobody|No one) (?:has|who)\b",
        allowed: "",
        hint: "say what does not have it: \"no process has ...\"",
        hit: "It is a file that no one has open.",
        passes: "It is a file that no process has open.",
    },
    Form {
        place: Anywhere,
        find: r"\bsuch (?:a |an )?one\b",
        allowed: "",
        hint: "repeat the noun: \"such a ring\"",
        hit: "It reads such a one.",
        passes: "It reads such a ring.",
    },
    Form {
        place: SentenceStart,
        find: r"So (?:many|much|often|long) [\w']+",
        allowed: r"^So (?:long|much) as\b|^So (?:many|much|often) .* that\b",
        hint: "say the number of what: \"The number of ...\", \"How long ...\"",
        hit: "So many records are read at once.",
        passes: "The number of records to read at once, so many as there are.",
    },
    Form {
        place: SentenceStart,
        find: r"(?:Else|Not so) [\w']+",
        allowed: "",
        hint: "write \"Otherwise, ...\"",
        hit: "It is read. Else it is left out.",
        passes: "It is read. Otherwise, it is left out.",
    },
    Form {
        place: Anywhere,
        find: r"\bbe it\b(?: \w+)?",
        allowed: r"be it(?:s| is| was| has| can| will)\b",
        hint: "write \"whether ... or ...\"",
        hit: "It ends, be it for a slot or for a table.",
        passes: "It ends, whether for a slot or for a table.",
    },
    Form {
        place: Anywhere,
        find: r"\b(?:thereof|whereof|wherein|therein|anew|oftener|whither)\b",
        allowed: "",
        hint: "write \"of it\", \"in which\", \"again\"",
        hit: "The table is read anew.",
        passes: "The table is read again.",
    },
    Form {
        place: Anywhere,
        find: r"\band (?:its|his|their) likes?\b",
        allowed: "",
        hint: "write \"and similar ...\"",
        hit: "It calls clang and its like.",
        passes: "It calls clang and the like.",
    },
];
