"""The judge as a reward: what number it gives, where its judgements come from, and what happens when it fails."""

from rmkit.rewards.reward import AsyncJudgeReward, JudgeReward, async_judge_reward, judge_reward

__all__ = ["AsyncJudgeReward", "JudgeReward", "async_judge_reward", "judge_reward"]
