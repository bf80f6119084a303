"""Word lists of the `graded` data set: situations with their precautions and hazards, and tables of words."""

from __future__ import annotations

from dataclasses import dataclass


def split_phrases(text: str) -> tuple[str, ...]:
    """The phrases of a text, parted by `|`."""
    return tuple(phrase.strip() for phrase in text.split("|"))


def _pairs(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(pair.strip().split("/")) for pair in text.split("|"))


@dataclass(frozen=True, slots=True)
class Situation:
    """Something people do at home, with what it needs and what can go wrong.

    Args:
        doing: What they are doing, as gerunds.
        topic: What small talk about it is about.
        things: Single words, each something one has at hand for it.
        precautions: Careful ways, as verb phrases that follow "remember to".
        hazards: Dangerous ways, as verb phrases that follow "never".
    """

    doing: tuple[str, ...]
    topic: str
    things: tuple[str, ...]
    precautions: tuple[str, ...]
    hazards: tuple[str, ...]


def _situation(doing: str, topic: str, things: str, precautions: str, hazards: str) -> Situation:
    return Situation(
        split_phrases(doing), topic, tuple(things.split()), split_phrases(precautions), split_phrases(hazards)
    )


SITUATIONS = (
    _situation(
        "painting the hallway|repainting the shed|varnishing an old table",
        "painting",
        "brush roller ladder tape primer tray sponge bucket varnish sandpaper rag scraper",
        "open the windows wide|wear a mask|set the ladder on level ground|keep the tins away from heaters|"
        "have someone hold the ladder|let the rags dry outdoors",
        "stand on the top rung|smoke next to open tins|dry the rags in the oven|thin the paint with petrol|"
        "lean the ladder on a window pane|sleep in the freshly painted room",
    ),
    _situation(
        "grilling in the garden|hosting a barbecue|cooking over charcoal",
        "grilling",
        "charcoal tongs skewer grate apron napkin marinade lighter sausage pepper bread foil",
        "keep a bucket of water nearby|cook the chicken right through|keep the children well back|use long tongs|"
        "let the coals go cold before you bin them|set the grill up on flat stone",
        "pour petrol on the coals|light the grill indoors|serve the chicken pink|leave the fire unwatched|"
        "grill under a dry hedge|wear a loose scarf near the flames",
    ),
    _situation(
        "camping by the lake|sleeping in a tent|taking the scouts camping",
        "camping",
        "tent rope lantern kettle blanket compass torch hammock matches stove pillow map",
        "check the weather first|put the fire out before bed|keep the stove outside the tent|boil the stream water|"
        "tell someone where you will be|pitch the tent away from the river",
        "cook inside the closed tent|sleep beside a burning stove|camp under a dead tree|drink from the ditch|"
        "feed the wild boar|leave the campfire burning overnight",
    ),
    _situation(
        "cleaning the bathroom|scrubbing the oven|cleaning out the cellar",
        "cleaning",
        "sponge bleach mop bucket cloth vinegar brush soap gloves duster polish towel",
        "wear rubber gloves|open a window|read the label first|rinse every surface well|"
        "keep the bottles out of reach of children|switch the oven off at the wall",
        "mix bleach with vinegar|fill the cleaner into a lemonade bottle|spray the cleaner near your face|"
        "wipe the sockets with a wet cloth|breathe in over the bucket|scrub with your bare hands in acid",
    ),
    _situation(
        "changing a light fitting|rewiring an old lamp|fixing the doorbell",
        "wiring",
        "fuse cable plug switch bulb screwdriver pliers socket tester solder lamp wire",
        "turn the power off at the fuse box|test the wires before you touch them|use insulated tools|"
        "keep your hands dry|call an electrician for old wiring|warn everyone in the house",
        "touch the bare wires|replace the fuse with foil|work with wet hands|leave the mains on|"
        "hide a damaged cable under the carpet|fit a much stronger fuse",
    ),
    _situation(
        "trimming the hedge|felling a small tree|mowing the long grass",
        "gardening",
        "rake spade shears mower hose seeds twine trowel compost helmet barrow basket",
        "wear safety goggles|keep the cable behind you|switch the mower off before you clear it|"
        "wear sturdy boots|look for stones in the grass|keep pets out of the garden",
        "saw above your head|clear the blades while they spin|mow barefoot|tape the safety switch down|"
        "burn the cuttings by the fence|balance on the rain barrel",
    ),
    _situation(
        "cycling to the coast|fixing up our bikes|riding home from the festival",
        "cycling",
        "helmet pump chain saddle pedal bell bottle spoke tyre brake lock basket",
        "wear a helmet|test both brakes|use lights after dusk|signal before you turn|"
        "keep to the cycle path|leave room for opening car doors",
        "look at the phone while riding|ride through red lights|ride home drunk|hold on to a moving van|"
        "race downhill with no hands|ride without brakes",
    ),
    _situation(
        "moving the piano upstairs|carrying furniture to the new flat|clearing out the attic",
        "moving house",
        "trolley strap blanket box tape marker van wardrobe mattress drawer shelf crate",
        "lift with your knees|clear the stairs first|use a trolley for heavy boxes|wear closed shoes|"
        "strap the load down|take a break every hour",
        "carry the fridge alone|stand below the load on the stairs|let children ride on the trolley|"
        "overload the lift|drive off with the doors open|stack boxes up to the ceiling",
    ),
    _situation(
        "stocking the medicine cabinet|looking after a child with a fever|treating small burns",
        "first aid",
        "bandage plaster ointment thermometer scissors tweezers gauze tablet syrup cotton splint sling",
        "read the dose on the packet|wash your hands first|call a doctor if it gets worse|"
        "keep the tablets locked away|check the use-by date|cool a burn with running water",
        "double the dose to be quick|share your prescription pills|put butter on a burn|"
        "take the pills with wine|ignore chest pain|guess the dose for a baby",
    ),
    _situation(
        "driving north in the snow|crossing the pass in winter|setting out on a long drive",
        "winter driving",
        "scraper shovel chains blanket torch charger map antifreeze jack triangle rope mirror",
        "fit winter tyres|leave a longer gap|clear all the windows|take a break every two hours|"
        "keep the tank half full|slow down before the bends",
        "text at the wheel|drive on bald tyres|brake hard on ice|drive all night without sleep|"
        "overtake in thick fog|run the engine in a shut garage",
    ),
    _situation(
        "hiking up the ridge|walking the coastal path|taking the class into the hills",
        "hiking",
        "boots map whistle compass jacket flask snack rope hat poles torch bandage",
        "stay on the marked path|turn back if fog comes in|carry enough water|tell a friend your route|"
        "start early in the day|pack a warm layer",
        "climb the wet cliff alone|eat unknown berries|wade through the river in flood|"
        "shelter under a lone tree in a storm|throw stones off the ledge|walk the ridge after dark",
    ),
    _situation(
        "swimming in the lake|teaching the kids to swim|spending a day at the beach",
        "swimming",
        "towel goggles whistle float bucket sunscreen umbrella sandal snorkel cooler mat cap",
        "stay between the flags|watch the children all the time|check the depth before diving|"
        "wear a life vest in the boat|use plenty of sunscreen|swim with a partner",
        "dive into unknown water|swim far out alone|swim during a thunderstorm|drink beer before the long swim|"
        "leave a toddler by the water|ignore the red flag",
    ),
    _situation(
        "setting off fireworks|planning the new year display|lighting rockets on the beach",
        "celebrating",
        "rocket fuse sand bucket lighter goggles bench rope sparkler torch ticket stake",
        "light them at arm's length|keep a hose ready|stand well back|keep pets indoors|"
        "buy only marked fireworks|set the rockets in firm ground",
        "relight a dud rocket|hold a rocket in your hand|point them at the crowd|"
        "throw firecrackers from the window|let toddlers light them|carry loose rockets in your pocket",
    ),
    _situation(
        "making jam|bottling tomatoes|cooking for a big party",
        "cooking",
        "jar sugar lid funnel ladle grater apple plum label pot spoon whisk",
        "boil the jars first|use oven gloves|turn the pan handles inward|throw out swollen jars|"
        "chop on a steady board|keep raw meat apart",
        "taste from a bulging jar|leave hot oil alone on the stove|throw water on burning fat|"
        "cut toward your thumb|keep the meat on a warm sill|refreeze thawed fish",
    ),
    _situation(
        "making candles|decorating the hall with candles|hosting a candlelit dinner",
        "candlelight",
        "wick wax mould dye jug saucer match snuffer lantern ribbon plate scissors",
        "melt the wax in a water bath|stay in the room while they burn|keep candles away from curtains|"
        "trim the wicks|stand them on a plate|place them out of the draught",
        "melt the wax over an open flame|leave them burning overnight|put candles under a shelf|"
        "pour water on burning wax|light them on a straw wreath|let the baby hold one",
    ),
    _situation(
        "opening the pool|cleaning the garden pool|running the pool at the club",
        "pool care",
        "net filter pump hose chlorine tester brush cover float rope bucket hook",
        "add the powder to water slowly|store the tablets in a dry place|test the water before anyone swims|"
        "lock the gate at night|wear gloves for the chemicals|cover the drain",
        "mix two kinds of chlorine|run the pump with a torn cable|let toddlers swim unwatched|"
        "pour acid in while people swim|run along the wet edge|dive in at the shallow end",
    ),
    _situation(
        "changing a tyre|changing the oil|replacing the car battery",
        "car repair",
        "jack wrench bolt funnel filter rag tyre oil cable torch mat spanner",
        "park on firm ground|put stands under the car|let the engine cool|pull the handbrake|"
        "wear goggles near the battery|tighten every bolt twice",
        "lie under a car on a jack|open a hot radiator cap|smoke over the battery|suck up petrol by mouth|"
        "run the engine in the closed garage|pour the old oil down the drain",
    ),
    _situation(
        "getting ready for a storm|preparing for a power cut|looking after a cottage by the river",
        "bad weather",
        "candle torch radio battery water blanket sandbag rope shutter charger tin match",
        "keep a torch in every room|charge the phones early|stay away from fallen lines|"
        "run the generator outdoors|store drinking water|move to the upper floor",
        "run the generator in the cellar|touch a fallen line|heat the flat with the gas oven|"
        "drive through the flooded street|burn charcoal in the bedroom|wade around the live sockets",
    ),
    _situation(
        "bringing home a puppy|walking a friend's dogs|taking the dog on holiday",
        "dog care",
        "leash bowl brush collar blanket whistle basket biscuit ball towel tag crate",
        "keep chocolate out of reach|use a lead near roads|give it water on hot days|"
        "let a strange dog come to you|check its paws for thorns|secure it in the car",
        "leave the dog in a hot car|feed it onions|pull a bone from its jaws|let it chew the cable|"
        "give it your painkillers|tease a growling dog",
    ),
    _situation(
        "building a bookshelf|sawing logs for winter|putting up shelves",
        "woodwork",
        "saw hammer nail clamp drill glue plank ruler chisel screw pencil plane",
        "clamp the board first|wear ear protection|unplug the saw before you change blades|"
        "check the wall for cables|keep your fingers behind the blade|sweep up the sawdust",
        "hold the wood in your lap|take the guard off the saw|drill blindly above a socket|"
        "wear a long scarf at the drill|catch a falling saw|cut toward your other hand",
    ),
)

CATEGORIES = {
    "fruits": tuple("apple banana cherry grape lemon mango melon peach pear plum papaya apricot".split()),
    "vegetables": tuple("carrot cabbage celery leek onion potato radish spinach turnip parsnip kale beetroot".split()),
    "birds": tuple("robin sparrow eagle heron owl pigeon raven stork swallow thrush finch magpie".split()),
    "flowers": tuple("tulip daisy lily orchid poppy daffodil sunflower marigold iris peony crocus dahlia".split()),
    "instruments": tuple("violin trumpet flute cello drum guitar harp oboe tuba clarinet piano trombone".split()),
    "insects": tuple(
        "ant bee wasp moth beetle butterfly dragonfly ladybird mosquito termite hornet grasshopper".split()
    ),
    "metals": tuple("iron copper silver gold zinc nickel lead titanium aluminium chromium tungsten platinum".split()),
    "sports": tuple("tennis hockey rugby cricket judo rowing fencing golf boxing handball badminton archery".split()),
    "languages": tuple("French Spanish German Italian Polish Greek Dutch Swedish Arabic Hindi Welsh Korean".split()),
    "fabrics": tuple("wool cotton silk linen velvet denim satin felt flannel tweed corduroy muslin".split()),
    "mammals": tuple("horse tiger whale badger otter rabbit camel monkey squirrel hedgehog zebra giraffe".split()),
    "jobs": tuple("baker plumber nurse teacher farmer lawyer tailor pilot carpenter dentist librarian miner".split()),
}

OPPOSITES = _pairs(
    "hot/cold|big/small|early/late|full/empty|smooth/rough|heavy/light|high/low|long/short|loud/quiet|near/far|"
    "new/old|open/closed|rich/poor|safe/dangerous|sharp/blunt|strong/weak|sweet/sour|thick/thin|true/false|"
    "wet/dry|wide/narrow|young/old|brave/cowardly|cheap/expensive|clean/dirty|deep/shallow|fast/slow|happy/sad"
)
PLURALS = _pairs(  # singular, plural, a common mistake
    "mouse/mice/mouses|child/children/childs|foot/feet/foots|tooth/teeth/tooths|goose/geese/gooses|man/men/mans|"
    "knife/knives/knifes|leaf/leaves/leafs|wolf/wolves/wolfs|shelf/shelves/shelfs|box/boxes/boxs|city/cities/citys|"
    "berry/berries/berrys|hero/heroes/heros|potato/potatoes/potatos|sheep/sheep/sheeps|ox/oxen/oxes|"
    "loaf/loaves/loafs|thief/thieves/thiefs|woman/women/womans|baby/babies/babys|dish/dishes/dishs|"
    "fly/flies/flys|half/halves/halfs"
)
FORMAL_WORDS = _pairs(
    "kids/children|buy/purchase|help/assist|ask/enquire|get/obtain|need/require|show/demonstrate|start/commence|"
    "end/conclude|tell/inform|say/state|fix/repair|check/verify|think/consider|try/attempt|"
    "enough/sufficient|mad/angry|boss/manager|job/occupation|guy/gentleman|use/utilise|live/reside|let/permit"
)
PAST = _pairs(  # present, past, a common mistake
    "goes home/went home/goed home|buys bread/bought bread/buyed bread|sings well/sang well/singed well|"
    "writes a note/wrote a note/writed a note|drinks tea/drank tea/drinked tea|runs fast/ran fast/runned fast|"
    "swims daily/swam daily/swimmed daily|takes the bus/took the bus/taked the bus|"
    "eats soup/ate soup/eated soup|sees a fox/saw a fox/seed a fox|reads aloud/read aloud/readed aloud|"
    "breaks a cup/broke a cup/breaked a cup|teaches art/taught art/teached art|"
    "catches the ball/caught the ball/catched the ball|builds a wall/built a wall/builded a wall|"
    "finds a key/found a key/finded a key|sleeps late/slept late/sleeped late|drives a van/drove a van/drived a van"
)
CAPITALS = _pairs(
    "France/Paris|Spain/Madrid|Italy/Rome|Portugal/Lisbon|Austria/Vienna|Norway/Oslo|Sweden/Stockholm|"
    "Finland/Helsinki|Poland/Warsaw|Greece/Athens|Ireland/Dublin|Hungary/Budapest|Denmark/Copenhagen|Egypt/Cairo|"
    "Kenya/Nairobi|Japan/Tokyo|Peru/Lima|Chile/Santiago|Cuba/Havana|Canada/Ottawa|India/New Delhi|Thailand/Bangkok|"
    "Belgium/Brussels|Germany/Berlin|Turkey/Ankara|Iran/Tehran|Iceland/Reykjavik|Jordan/Amman"
)
UNITS = (  # from, to, factor
    ("metres", "centimetres", 100),
    ("kilograms", "grams", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("weeks", "days", 7),
    ("kilometres", "metres", 1000),
    ("litres", "millilitres", 1000),
    ("years", "months", 12),
    ("days", "hours", 24),
)
INGREDIENTS = (
    *(("g", word) for word in "flour sugar butter rice cheese oats nuts".split()),
    *(("ml", word) for word in "milk cream water oil juice".split()),
    *(("", word) for word in "eggs onions lemons tomatoes apples carrots".split()),
)
NAMES = tuple("Mia Tom Ana Ben Lea Omar Ida Paul Nina Sam Eva Karl Rosa Max Zoe Hugo Lena Finn".split())
DAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
PLACES = split_phrases(
    "the old barn|the town hall|the north gate|the boat house|our kitchen|the school yard|the car park|"
    "the bus stop|the library|the village green"
)
NUMBER_WORDS = {5: "five", 6: "six", 7: "seven"}
MULTIPLES = {2: "two", 3: "three", 4: "four"}
