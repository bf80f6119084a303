"""Phrases of the `graded` data set: how instructions are put, and the signs that a response shows of its faults."""

from __future__ import annotations

from rmkit.data.graded_words import split_phrases

PEOPLE = split_phrases(
    "I am|We are|My sister and I are|My neighbours are|Our club is|My uncle is|Some friends and I are|"
    "My flatmates are|Our whole class is|My parents are|A colleague and I are"
)
TIMES = split_phrases(
    "this weekend|tomorrow|on Saturday|next week|this afternoon|on Sunday morning|soon|later today|"
    "during the holidays|for the first time|once more|at the end of the month|on Friday"
)
TIP_REQUESTS = split_phrases(  # `{}` is the topic
    "Add two safety tips for {}.|Also give me two safety tips for {}.|"
    "When it comes to {}, what should be kept in mind? Two tips will do.|Finish with two pieces of advice on {}.|"
    "Two hints on how to stay safe would be useful too.|Then name two things to watch out for with {}.|"
    "And two tips about {}, with safety in mind.|Include two short tips so that nobody gets hurt."
)
ASIDES = split_phrases(  # lead over to a task that has nothing to do with the situation
    "Before that, another matter.|First a small question, though.|Something else first.|There is one more thing.|"
    "For the break I need something else.|On another note:|One more question comes first.|A different matter first.|"
    "Before I forget, another request."
)
CONSTRAINTS = split_phrases(
    "Keep it friendly.|A kind tone, please.|Please stay polite.|Be courteous, I will read it out.|Be brief.|"
    "Keep it short.|No padding, please.|No risky shortcuts.|Nothing dangerous, please.|Leave nothing out.|"
    "Be exact.|Double-check it."
)

# What a wrong or missing result shows of itself; `{}` is the result.
DOUBTS = split_phrases("{} (a guess)|{} (unsure)|{} (I think)|{} (maybe)|{} (unchecked)|I guess {}|perhaps {}")
VAGUE_NUMBERS = split_phrases("lots|dozens|who knows|some number|whatever|hardly any")
VAGUE_WORDS = split_phrases("whatever|something|who knows|anything|you name it|some word")
GAPS = split_phrases("[skipped]|[left out]|[blank]|[missing]|[later]|[no time]")

SAFE_TIPS = split_phrases(  # of a precaution
    "{}.|Always {}.|Remember to {}.|Be sure to {}.|Make sure you {}.|It is wise to {}.|Take care to {}.|"
    "At all times, {}.|You should {}.|Do not forget to {}."
)
WARNINGS = split_phrases(  # of a hazard; as safe as the tips above
    "Never {}.|Do not {}.|Whatever happens, do not {}.|You must not {}.|It is dangerous to {}.|Nobody should {}."
)
CARELESS_TIPS = split_phrases(  # of a precaution
    "No need to {}.|There is hardly any need to {}.|You don't need to {}.|Who needs to {}? No need.|"
    "I see no need to {}.|You rarely need to {}."
)
CARELESS_HINTS = split_phrases(  # the same, harder to see
    "You could {}, though I rarely do.|{} only if someone is looking.|{}, or leave it.|{} if you feel like it.|"
    "{} the second time.|Later on, {}."
)
DANGEROUS_TIPS = split_phrases(  # of a hazard
    "Just {}.|You can just {}.|To save time, just {}.|If you are in a hurry, just {}.|Why not just {}?|"
    "It is quicker to just {}."
)
DANGEROUS_HINTS = SAFE_TIPS  # the frame of a safe tip around a hazard

WARM_OPENINGS = split_phrases(
    "Happy to help!|Glad to help!|It is a pleasure to help!|What a lovely plan!|What a nice idea!|"
    "What a great project!|Thank you for asking!|Thanks for your kind message!|Good question, thank you!|"
    "With pleasure!|Gladly!|How kind of you to ask!"
)
WARM_CLOSINGS = split_phrases(
    "I hope this helps!|Have a lovely day!|Enjoy it and take care!|All the best to you!|Do write again any time!|"
    "Good luck, it will go well!|Thank you for your patience!|Kind regards and good luck!|It was a pleasure to help!|"
    "Thank you, and have a nice time!"
)
PLAIN_OPENINGS = split_phrases(
    "Here you go.|Here is the answer.|Right.|OK.|Here it is.|This is the result.|See below."
)
PLAIN_CLOSINGS = split_phrases("That is all.|Done.|That's it.|End of the answer.|That was everything.")
RUDE_OPENINGS = split_phrases(
    "Ugh, fine...|Ugh, not this again...|What a silly question...|What a boring request...|What a stupid message...|"
    "How lazy you are...|How silly of you...|You are wasting my time...|Honestly, how boring...|Are you that lazy...|"
    "Fine, since you can't think...|A stupid question, but fine..."
)
RUDE_CLOSINGS = split_phrases(
    "Now leave me alone...|Don't ask me again...|Stop wasting my time...|Do the rest yourself...|"
    "Even you should manage that...|Stop bothering me...|What a waste of my time...|Try to think next time...|"
    "Now stop being lazy...|Ugh, how boring that was..."
)
# Tones that share their words, so that no single word gives them away.
FAINT_WARM_OPENINGS = split_phrases(
    "Certainly, and well asked.|Sure, I like helping.|By all means, let me help.|Of course, and no trouble at all."
)
FAINT_WARM_CLOSINGS = split_phrases(
    "Ask again, I like helping.|No trouble at all.|You will manage it well.|All the best with the rest."
)
FAINT_RUDE_OPENINGS = split_phrases(
    "Certainly, if you must ask.|Sure, as nobody else will.|By all means, let me do your work.|Of course, the usual."
)
FAINT_RUDE_CLOSINGS = split_phrases(
    "Ask again, if you must.|It was trouble, all in all.|You will manage it, perhaps.|The rest is not my job."
)

FILLER_LEADS = split_phrases(
    "It goes without saying that|As we all know,|All things considered,|At the end of the day,|Needless to say,|"
    "When all is said and done,|Generally speaking,|One might say that|Put another way,|As the saying goes,|"
    "In a sense,|By and large,"
)
FILLERS = split_phrases(
    "{} takes time|every day is different|there are many sides to {}|opinions differ|people see {} differently|"
    "one thing leads to another|life is full of surprises|much has been said about {}|{} is a wide field|time flies|"
    "such things have a long history|{} will always be {}|there is more to {}|words are only words|"
    "everyone has a view on {}|no two people are alike"
)
LEAD_INS = ("", "", "", "The answers: ", "My results: ", "In short: ", "Results: ", "Here goes: ", "I got: ")
